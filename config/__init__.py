"""What every layer stands on: settings, errors, ids, time, logs and the database. Imports nothing of ours."""
