"""The errors of the embedded AWS. Each message says what to do."""


class LocalError(Exception):
    """Something of the embedded AWS cannot be done."""


class MotoError(LocalError):
    """moto is missing, has another version than the patches are written for, or is in use by something else."""


class TerraformError(LocalError):
    """Terraform is missing, too old, or reported errors; the message holds Terraform's own summary and detail."""


class StackError(LocalError):
    """The local stack cannot be started, or is asked for something while it is not up."""
