"""The reasons why `kvae.load` refuses a file."""

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MAX_DEPTH = 50


class Refusal(Exception):
    """The message continues a sentence that begins with the file's name."""


def harm(reason: object) -> Refusal:
    return Refusal(f"refused: {reason}")


def damage(reason: object) -> Refusal:
    return Refusal(f"damaged or not a .keras file: {reason}")
