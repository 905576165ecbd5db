"""What describes the endpoints, and what feeds it.

`stats` has the documented types, `table` the rows behind them, `monitor` counts requests,
`scraper` and `metrics` read the engines' own figures, `health` says which endpoints are out.
"""
