"""What was trained in a scale, in words: the small models of the workflow's own, or Hugging Face models."""

from reproduction.settings.configuration import Configuration


def models_text(configuration: Configuration) -> str:
    """The models of a configuration's experiments and the seeds that they were trained with, as the end of a sentence.

    A scale has models of the workflow's own, Hugging Face models, or both; each kind is named if there is one.
    """
    parts = [_own(configuration)] if configuration.base_model is not None else []
    hub: dict[str, list[str]] = {}
    for name, experiment in configuration.experiments.items():
        if experiment.pretrained is not None:
            model = experiment.pretrained.model
            size = f"{model.name} ({model.parameters / 1e9:.3g} billion weights)"
            seeds = configuration.seeds_of(name)
            of_seeds = f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"
            hub.setdefault(f"{size}, {of_seeds}", []).append(name)
    if hub:
        listed = "; ".join(f"{words} ({', '.join(names)})" for words, names in hub.items())
        parts.append(f"Hugging Face models, trained further by every method of their experiments: {listed}")
    return "; and ".join(parts)


def _own(configuration: Configuration) -> str:
    model, seeds = configuration.base_model, configuration.seeds
    return (
        f"a transformer of {model.layers} layer{'s' * (model.layers != 1)} and width {model.hidden_size}, pretrained "
        f"from scratch on arithmetic problems once for each of the {len(seeds)} seed{'s' * (len(seeds) != 1)} "
        f"{', '.join(map(str, seeds))}, which is far smaller than the papers' models"
    )
