"""What each objective minimises or does, on a few responses, against numbers worked by hand."""

import contextlib
import copy
import functools
import math
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from reproduction.related import trainer, value_model
from reproduction.related.declarations import RELATED
from reproduction.related.length_weights import length_weights
from reproduction.related.objectives.objective import Batch
from tests import by_hand

# Two groups of four; the second has no spread. Responses of one and two tokens.
MASK = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]] * 2)
TOKENS = MASK.sum(dim=1)
OLD = torch.tensor([[-1.0, -0.5]] * 8, dtype=torch.float64)
REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)

near = functools.partial(by_hand.near, tolerance=1e-6)


def minimised(name, advantages=None, moved=None, reference=OLD, objective=None, **rollout):
    """The loss and its gradient (B,) with respect to each response's summed log-probability."""
    method = RELATED[name]
    if advantages is None:
        advantages = method.advantages(REWARDS, generator=torch.Generator().manual_seed(0)).flatten()
    change = torch.zeros(8, dtype=torch.float64) if moved is None else torch.tensor(moved, dtype=torch.float64)
    change.requires_grad_()
    log_probs = OLD + (change / TOKENS)[:, None]
    rollout = {"advantages": advantages, **rollout}
    batch = Batch(log_probs, OLD, reference, MASK, advantages, rollout, 4, method.clip)
    loss = (objective or method.make_objective()).loss(torch.zeros(()), batch)
    return loss.detach(), torch.autograd.grad(loss, change)[0]


class TestSequenceObjectives:
    Z = [0.1, -0.2, 0.4, 0.0, 0.0, 0.0, 0.0, 0.0]

    def test_sppo(self):
        """Win rates of the first group are 7/8 and 3/8, of the second 1/2."""
        loss, gradient = minimised("sppo", moved=self.Z)
        target = [375, -125, -125, -125, 0, 0, 0, 0]
        near(loss, sum(0.5 * (z - t) ** 2 for z, t in zip(self.Z, target, strict=True)) / 8, tolerance=1e-4)
        near(gradient, [(z - t) / 8 for z, t in zip(self.Z, target, strict=True)])

    def test_rebel(self):
        """The mean over the ordered pairs of each group, and over groups."""
        loss, _ = minimised("rebel", moved=self.Z)
        residuals = [z - r for z, r in zip(self.Z[:4], (1, 0, 0, 0), strict=True)]
        pairs = [(a - b) ** 2 for i, a in enumerate(residuals) for j, b in enumerate(residuals) if i != j]
        near(loss, sum(pairs) / 12 / 2)

    def test_a_star_po(self):
        """V* of four right answers among eight is .7169 (beta1 .5); z is against the base model."""
        objective = RELATED["a-star-po"].make_objective()
        asked = []

        def base_responses(examples, count):
            asked.append([example["prompt"] for example in examples])
            return None, None, torch.tensor([[1.0] * 4 + [0.0] * 4] * len(examples))

        examples = [{"prompt": "a"}] * 4 + [{"prompt": "b"}] * 4
        stub = SimpleNamespace(base_responses=base_responses, examples=examples)
        assert objective.examples(stub, examples) is examples
        objective.examples(stub, [{"prompt": "a"}, {"prompt": "c"}])
        assert asked == [["a", "b"], ["c"]]
        output = {"advantages": REWARDS.flatten()}
        objective.rollout(stub, output, REWARDS)
        near(output["advantages"], REWARDS.flatten() - 0.7169, tolerance=1e-4)
        _, gradient = minimised("a-star-po", output["advantages"], objective=objective)
        near(8 * gradient, [-0.000566, *[0.001434] * 3, *[-0.000566] * 4], tolerance=1e-6)
        shifted = OLD - (0.5 / TOKENS)[:, None]
        loss, _ = minimised("a-star-po", output["advantages"], reference=shifted, objective=objective)
        near(loss, ((1e-3 * 0.5 - output["advantages"]) ** 2).mean())

    def test_common_limit(self):
        """Where nothing has moved all three push by -(r - group mean), with the factors of their equations."""
        centred = (REWARDS - REWARDS.mean(dim=1, keepdim=True)).flatten()
        near(8 * minimised("sppo")[1], -1000 / 2 * centred)
        near(2 * minimised("rebel")[1], -4 / 3 * centred)
        star = minimised("a-star-po", centred)[1]  # beta1 to infinity: V* is the mean of the base model's rewards
        near(8 * star, -2 * 1e-3 * centred)


class TestPairs:
    MARKS = torch.tensor([1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0])

    @pytest.mark.parametrize(("name", "likelihood"), [("rpo", 0.01 * 0.005), ("rpo-mean", 0.005 / 1)])
    def test_rpo_at_the_reference(self, name, likelihood):
        """ln 2 plus the likelihood of the chosen response, whose one token has log-probability -1."""
        loss, gradient = minimised(name, self.MARKS)
        near(loss, math.log(2) + likelihood)
        near(gradient, [-0.01 / 2 - likelihood, 0, 0.01 / 2, *[0] * 5])

    @pytest.mark.parametrize("name", ["simpo", "alpha-dpo"])
    def test_margin(self, name):
        """Mean log-probabilities are -1 and -.75; at the reference the adapted margin of alpha-DPO is 0."""
        noise = torch.tensor([[1e-7, -1e-7]], dtype=torch.float64)
        loss, gradient = minimised(name, self.MARKS, reference=OLD + noise)
        exponent = 2.5 * (-0.25 - 0.6)
        near(loss, math.log(1 + math.exp(-exponent)))
        slope = 2.5 / (1 + math.exp(exponent))
        near(gradient, [-slope, 0, slope / 2, *[0] * 5])

    def test_adapted_margin(self):
        """A gap of .1 after running values of .05 and .02: M is 2.5 before the update; here they are updated first."""
        objective = RELATED["alpha-dpo"].make_objective()
        objective.load_state_dict({"mean": 0.05, "deviation": 0.02})
        reference = OLD.clone()
        reference[0] -= 0.1
        loss, _ = minimised("alpha-dpo", self.MARKS, reference=reference, objective=objective)
        margin = (0.1 - (0.9 * 0.05 + 0.1 * 0.1)) / 0.02
        near(loss, math.log(1 + math.exp(-2.5 * (-0.25 - 0.2 * margin - 0.6))))
        assert objective.state_dict() == {"mean": pytest.approx(0.055), "deviation": 0.02}

    @pytest.mark.parametrize("name", ["rpo", "simpo"])
    def test_without_a_pair_nothing_moves(self, name):
        loss, gradient = minimised(name, torch.zeros(8))
        assert loss == 0 and not gradient.any()


class TestGroups:
    @pytest.mark.parametrize("parts", [1, 2, 4])
    def test_minibatches_hold_whole_groups(self, parts):
        """From any shuffle; every row keeps what belongs to it, and the order of groups is that of the shuffle."""
        row = torch.randperm(16, generator=torch.Generator().manual_seed(3))
        shuffled = [{"row": rows, "twice": 2 * rows, "count": torch.tensor(5)} for rows in row.split(16 // parts)]
        found = trainer.whole_groups(shuffled, 4)
        assert len(found) == parts and all(part["count"] == 5 for part in found)
        rows = torch.cat([part["row"] for part in found]).view(-1, 4)
        assert (rows == rows[:, :1] // 4 * 4 + torch.arange(4)).all()
        assert list(dict.fromkeys((row // 4).tolist())) == (rows[:, 0] // 4).tolist()
        assert torch.equal(torch.cat([part["twice"] for part in found]), 2 * rows.flatten())


class TestSelection:
    @pytest.mark.parametrize(
        ("name", "kept"),
        [("pods", 2), ("pods-random", 2), ("pods-highest", 2), ("pf-best-worst", 2), ("pf-best-random", 2)],
    )
    def test_those_left_out_leave_the_minibatch(self, name, kept):
        """The rows that stay hold all advantages, and their mean over m is the kinds' over G."""
        method = RELATED[name]
        if name.startswith("pods"):
            method = type(method)(**{**vars(method), "advantage_parameters": {"keep": kept}})
        advantages = method.advantages(REWARDS, generator=torch.Generator().manual_seed(1))
        output, stub = {"advantages": advantages.flatten()}, SimpleNamespace(method=method, num_generations=4)
        objective = method.make_objective()
        objective.rollout(stub, output, REWARDS)
        rows = objective.kept(stub, output["advantages"])
        assert len(rows) == 2 * kept and (rows < 4).sum() == kept
        assert set(advantages.flatten().nonzero().flatten().tolist()) <= set(rows.tolist())
        near(output["advantages"][rows].mean(), advantages.mean(), tolerance=1e-12)
        near(output["advantages"][rows].square().mean() * 4 / kept, advantages.square().mean(), tolerance=1e-12)


class TestLearnedLengthWeights:
    def test_the_exponent_follows_the_loss(self):
        """One step goes against the finite difference of the loss; lambda 0 leaves the advantages as they are."""
        objective = RELATED["lambda-grpo"].make_objective()
        objective.start(None)
        advantages = torch.tensor([1.0, -1.0, 0.5, -0.5, 0.2, 0.1, 0.4, -0.7], dtype=torch.float64)
        output = {"advantages": advantages, "completion_mask": MASK}
        objective.rollout(None, output, REWARDS)
        near(objective.weighted(advantages, output), advantages)
        relative_PG = output["relative_lengths"][::4]

        def whole(exponent):
            weights_PG = length_weights(relative_PG, exponent)
            return -(weights_PG.flatten() * advantages * TOKENS).sum() / TOKENS.sum()

        slope = (whole(1e-4) - whole(-1e-4)) / 2e-4
        minimised_by = Batch(OLD, OLD, None, MASK, advantages, output, 4, (0.2, 0.2))
        objective.loss(torch.zeros(()), minimised_by)
        near(objective.exponent.grad, slope, tolerance=1e-4)
        near(objective.exponent.detach(), -0.01 * math.copysign(1, slope), tolerance=1e-5)
        assert objective.metrics()["length_exponent"] == objective.exponent.item()
        again = RELATED["lambda-grpo"].make_objective()
        again.start(None)
        again.load_state_dict(copy.deepcopy(objective.state_dict()))
        for one in (objective, again):
            one.loss(torch.zeros(()), minimised_by)
        assert objective.exponent.item() == again.exponent.item() != 0

    def test_without_a_clip(self):
        """The exponent follows -f A r; at r = 2 a clip of 0.2 would count 1.2."""
        objective = RELATED["lambda-grpo"].make_objective()
        objective.start(None)
        output = {"advantages": torch.tensor([1.0, -1.0, 0.5, -0.5] * 2).double(), "completion_mask": MASK}
        objective.rollout(None, output, REWARDS)
        objective.loss(
            torch.zeros(()), Batch(OLD + math.log(2), OLD, None, MASK, output["advantages"], output, 4, None)
        )
        relative_PG = output["relative_lengths"][::4]
        slopes_PG = relative_PG.log() - relative_PG.log().mean(dim=1, keepdim=True)
        slope = -(slopes_PG.flatten() * output["advantages"] * 2 * TOKENS).sum() / TOKENS.sum()
        near(objective.exponent.grad, slope)


class TestRefinement:
    def test_a_text_longer_than_the_model_holds_is_refused(self):
        """Draft and response of 250 tokens each, a separator and a problem of 12; at 249 they fit."""
        for length, fits in ((249, True), (250, False)):
            stub = SimpleNamespace(
                _tokenize_prompts=lambda texts: ([[1] * len(text) for text in texts], None),
                train_dataset={"prompt": ["1+2=", "11+22-33+44="]},
                max_completion_length=length,
                model=SimpleNamespace(config=SimpleNamespace(max_position_embeddings=512)),
            )
            refused = pytest.raises(
                ValueError, match="may have 513 tokens, but the model holds 512; lower training.max"
            )
            with contextlib.nullcontext() if fits else refused:
                RELATED["igrpo"].make_objective().start(stub)

    @pytest.mark.parametrize(("name", "expected"), [("igrpo", "right"), ("igrpo-first-draft", "wrong")])
    def test_half_of_a_group_refines_a_draft(self, name, expected):
        def drafts(examples, count):
            assert [example["prompt"] for example in examples] == ["1+2=", "3+4="] and count == 2
            return [["wrong", "right"]] * 2, torch.tensor([[0.0, 1.0]] * 2)

        examples = [{"prompt": prompt, "answer": "3"} for prompt in ("1+2=", "3+4=") for _ in range(4)]
        stub = SimpleNamespace(num_generations=4, drafts=drafts)
        refined = RELATED[name].make_objective().examples(stub, examples)
        assert refined == [
            {"prompt": f"{expected};{prompt}", "answer": "3"} for prompt in ("1+2=", "3+4=") for _ in range(2)
        ]


def test_the_example_of_the_documentation_runs():
    text = (Path(__file__).parents[2] / "docs/related_methods.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict = {}
    try:
        exec(compile(block, "related_methods.md", "exec"), names)
        loss, gradient = minimised("sppo", moved=[0.3] + [0.0] * 7, objective=names["method"].make_objective())
    finally:
        names["OBJECTIVES"].pop("log-ratio-penalty", None)
    near(loss, 0.05 * 0.3**2 / 8)
    near(gradient, [0.05 * 2 * 0.3 / 8, *[0] * 7])


def _model():
    config = Qwen3Config(
        vocab_size=12, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, pad_token_id=0,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


class TestValues:
    VALUES = torch.tensor([[0.2, 0.5, 0.8]], dtype=torch.float64).repeat(2, 1)
    REWARDS_PG = torch.tensor([[1.0, 1.0]], dtype=torch.float64)

    def rollout(self, name, monkeypatch):
        monkeypatch.setattr(value_model, "values_of", lambda model, rollout: self.VALUES)
        monkeypatch.setattr(value_model, "whitened", lambda values, mask: values)
        objective, output = RELATED[name].make_objective(), {"completion_mask": torch.ones(2, 3)}
        objective.model = None
        objective.rollout(None, output, self.REWARDS_PG)
        return output

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("dvpo", [-0.137, -0.46, -0.8]),
            ("dvpo-terminal", [0.7655, 0.49, 0.2]),
            ("ppo", [0.7655, 0.49, 0.2]),
        ],
    )
    def test_advantages(self, name, expected, monkeypatch):
        """Values .2, .5, .8, and a right answer, whose reward is 1 in both scales."""
        output = self.rollout(name, monkeypatch)
        near(output["advantages"], [expected] * 2, tolerance=1e-4)
        if name == "ppo":
            near(output["returns"], [[0.9655, 0.99, 1.0]] * 2, tolerance=1e-4)

    def test_a_value_does_not_see_the_tokens_after_it(self):
        """V before token t changes with the tokens up to t - 1 only, whatever the padding."""
        torch.manual_seed(0)
        model = value_model.ValueModel(_model())
        torch.nn.init.normal_(model.head.weight)
        ids = torch.tensor([[0, 5, 6, 7, 8, 9]])
        mask = (ids > 0).long()
        values = model(ids, mask, 3)
        changed = ids.clone()
        changed[0, 4] = 3
        moved = (model(changed, mask, 3) - values)[0].abs() > 1e-6
        assert moved.tolist() == [False, False, True]
        near(model(ids[:, 1:], mask[:, 1:], 3).detach(), values.detach().double(), tolerance=1e-5)

    def test_a_fit_tells_good_texts_from_bad_ones(self):
        torch.manual_seed(0)
        model = value_model.ValueModel(_model())
        prompts, completions = [[3]] * 64, [[4, 5, 6] if row % 2 else [7, 8] for row in range(64)]
        ids, mask, length = value_model.padded(prompts, completions, 0)
        rewards = torch.tensor([1.0 if row % 2 else -1.0 for row in range(64)])
        settings = {"decay": 0.95, "epochs": 60, "learning_rate": 0.01, "generator": torch.Generator().manual_seed(0)}
        value_model.fit(model, ids, mask, length, rewards, **settings)
        values = model(ids[:2], mask[:2], length).detach()
        near(values[:, 0], [0.0, 0.0], tolerance=0.3)  # before the first token nothing is known
        near([values[0, 1], values[1, 1], values[1, 2]], [-1.0, 1.0, 1.0], tolerance=0.2)

    def test_texts_in_columns(self):
        ids, mask, length = value_model.padded([[1, 2], [3]], [[4], [5, 6]], 0)
        assert ids.tolist() == [[1, 2, 4, 0], [0, 3, 5, 6]]
        assert mask.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]] and length == 2
