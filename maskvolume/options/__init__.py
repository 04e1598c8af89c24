"""Options of programs: a dataclass becomes a command line and a config file, and comes back filled."""

from maskvolume.options.programs import option, parse_options, positional, required, save_options

__all__ = ["option", "parse_options", "positional", "required", "save_options"]
