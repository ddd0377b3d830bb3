"""Predictions and results, measured, blended, drawn and checked.

`metrics`, `evaluation`: how far maps are from the truth. `blend`, `mosaic`, `ensemble`: several
predictions made into one. `leaderboard`: what a published score tells. `installation`,
`diagnose`: whether an installation is sound and a record is as simulated. `opened_run`, `run_view`,
`plots`, `html_report`: the results of a run to look at; `plots` and `html_report` need matplotlib
and jinja2.
"""
