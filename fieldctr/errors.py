"""The one exception that is a message to the user, not a defect of the program."""


class UserError(Exception):
    """A mistake that the user can cure. Its text names the key, what was expected, what came, and the cure.

    The command line prints the text alone and exits with 2; anything else that is raised is a defect of the program
    and keeps its traceback.
    """


class LabelError(UserError):
    """Labels that cannot be: who knows the rule behind them adds it to the message."""
