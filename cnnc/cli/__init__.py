"""The `cnnc` command. Nothing else imports it."""
