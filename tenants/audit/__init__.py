"""The record of who did what: appended by requests, chained and signed behind them, exported, verified anywhere."""
