"""The demo model's training text: data files (TOML) beside this module, and their builder."""
