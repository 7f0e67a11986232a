"""What a figure says when its results cannot be drawn."""


class ResultsError(ValueError):
    """Results that a figure cannot be drawn from; the message names the file and says what to do."""


class NotConfigured(ResultsError):
    """The configuration of these results leaves out what the figure shows."""
