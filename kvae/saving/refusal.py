"""Why a file isn't loaded."""

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
DEEPEST = 50


class Refusal(Exception):
    """The end of a sentence that begins with the file's name."""


def harm(reason):
    return Refusal(f"refused: {reason}")


def damage(reason):
    return Refusal(f"damaged or not a .keras file: {reason}")
