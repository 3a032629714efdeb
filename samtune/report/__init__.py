"""A study as a page to read and to pass on, and as a plot in the terminal.

`page` puts the sections together, each of which is a function from an opened `Study` to a
`Section`; `plots` is where plotly is spoken to, `templates/` how it looks. `compare` sets several
studies side by side; `terminal` draws the score against a setting in text.
"""
