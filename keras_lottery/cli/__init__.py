"""The command line: one file per command. absl's flags end here."""
