"""The study: what XxaCT-NN does on mp36k, one file an experiment.

An experiment is a module of this package; experiments.EXPERIMENTS lists them, important ones first.  Its docstring says
question and cost; then, as far as it has them:

    TABLE                                 "table_1": name of its table, data/results/table_1.csv
    runs(preset="small")                  its RunConfigs, starts first; "smoke": the few that a notebook trains
    table(configs=None, place=RESULTS)    DataFrame; configs: by default all of runs()
    figures(configs=None, place=RESULTS)  name -> Figure, of what has finished
    findings(place=RESULTS)               claims.Finding of what the paper claims, sentences of the rest

A notebook asks for them in one call each:

    configs, place = pretraining.runs(preset), archive.place(preset)  # of "small": committed records; else data/runs
    archive.train(configs, place, n_gpus)                             # nothing where committed records are read
    tables.captioned(pretraining.table(configs, place), archive.label(preset))
    figures = pretraining.figures(configs, place)
    tables.listed(pretraining.findings())

What they share: archive (what is kept of a run, and where), variants (runs made and named), tables (runs as rows),
paper (its numbers, and its rows beneath ours), claims (Finding, intervals, verdicts), power_laws, latent (vectors),
floor (gradient boosting), schedule (what is trained next).
Every number of a page comes from one of these, never from a keyboard:

    archive.value("bimodal-e_form-s0", "mae", "e_form", exchanged="xrd")   76.0 meV/atom, as in the tables
    claims.paired("composition-e_form-s0", "bimodal-e_form-s0", "e_form")  (2.96, 2.27): errors of the first are larger
    tables.committed("table_1")                                            the table as it is committed

Commands: make study ARGS="--help"; with PYTHONPATH=notebooks, -m study.measured --help and -m study.noise --help.
"""
