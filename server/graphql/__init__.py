"""GraphQL: how cohorts are asked for. One endpoint over the engines that count and list, and the rows behind them."""
