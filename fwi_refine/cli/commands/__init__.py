"""The commands, one module each; `fwi_refine.cli.Commands` imports one when it is asked for."""
