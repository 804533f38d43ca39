"""The one type that ministack builds."""

from typing import Any


class Mount(dict[str, Any]):
    pass
