"""Program options: a dataclass declares them; the command line and a config file fill it."""

from maskvolume.options.fields import Limits, Size, check_ranges, marked, option, positional, required
from maskvolume.options.programs import parse_options, save_options

__all__ = [
    "Limits",
    "Size",
    "check_ranges",
    "marked",
    "option",
    "parse_options",
    "positional",
    "required",
    "save_options",
]
