"""The study: what XxaCT-NN does on mp36k, one file an experiment.

An experiment is a module of this package (list: study.experiments.EXPERIMENTS, important ones first).  Its docstring says
question and cost; then, as far as it has them:

    TABLE                              "table_1": name of its table, data/results/table_1.csv
    runs(preset="small")               its RunConfigs; "smoke": the few that a notebook trains on data/demo
    table(configs=None, place=RESULTS) DataFrame; configs: of runs(preset), by default all of "small"
    figures(configs=None, place=RESULTS) name -> matplotlib Figure; saved as figures/<dataset>/<name>.png
    findings(place=RESULTS)            list of claims.Finding (claim, measured, verdict) of what the paper claims, of
                                       sentences otherwise; str() of either is what to print

    experiment            table                      figures
    modalities            table_1                    e_form_learning crystal_system_learning e_form_parity
                                                     crystal_system_confusion (unimodal_* of runs without both)
    pretraining           table_2                    pretraining_mxm pretraining_retrieval figure_6
    encoders              table_3
    crystal_systems       table_4
    representations       table_5                    figure_2
    transfer              transfer
    scaling               figure_3                   figure_3
    splits                splits
    families              families
    other_pretrainings    hidden                     hidden
    few_labels            few_shot                   few_shot
    predictors            predictor
    learning_rates        search
    measured              measured_*                 measured_*
    noise                 noise                      noise_*
    throughput            throughput

A notebook:

    from study import archive, pretraining, tables
    configs, place = pretraining.runs(preset), archive.place(preset)   # "small": committed records; else data/runs
    if place == runs.RUNS:                                            # starts come before what starts from them
        results = [launch.train(config, n_gpus=n_gpus or None) for config in configs]
    figures = pretraining.figures(configs, place)                     # without what has not finished
    tables.captioned(pretraining.table(configs, place), archive.label(preset))
    print(*pretraining.findings(), sep="\\n")                          # always of the committed runs
    tables.captioned(tables.committed("table_2"), archive.label("small"))   # the csv as it is committed

What they share:

    archive.py     what is kept of a run, and where: read(name, place) -> Record or None, predictions(name, place),
                   errors(name, target, place), latent(name, place), value(name, metric, target, ...), keep(config)
    variants.py    runs made and named: variant(preset, model, target, start, **changes), pretraining(preset, objectives)
    tables.py      runs as rows, seeds as mean and spread, captions
    claims.py      Finding; verdicts over seeds (Welch) or crystals; paired(one, other, target) -> difference and half of
                   its 95 % interval over the crystals of `test`; markdown(), the table of findings of README.md
    power_laws.py  error = a N^-b + c with intervals, crossings
    latent.py      CLS vectors: components, silhouettes, neighbours, UMAP; describe(folder) of a run trained here, before
                   representations.table and figures of it
    floor.py       gradient boosting
    schedule.py    which run comes next; training and keeping them
    experiments.py all of them at once: planned runs, tables, figures, findings, markdown() for README.md

Commands, from the project's folder (make study ARGS="--list" is the first):

    cd notebooks && ../.venv/bin/python -m study --list              what is done, what is missing, how long it takes
    ... -m study --train --crystals crystals.parquet [--only PATTERN --threads 1 --at-once 2 --minutes 120]
    ... -m study --tables                                            every table again from the records
    ... -m study --figures                                           every figure of mp36k again, into figures/mp36k
    ... -m study --findings                                          the table of findings, markdown
    ... -m study                                                     what was trained here, and table 1 (end of make run)
    ... -m study.measured PATTERNS.parquet CHECKPOINT ...            judge released checkpoints, once
    ... -m study.noise FOLDER ...                                    the noise study

Kept in data/results: runs.csv (tidy: run split given effects exchanged target metric value), runs/<name>.json (one record a
run: config, final metrics, curves), crystals/<dataset>.parquet (id, formula, split, labels, once),
predictions/<name>.parquet and latent/<name>.parquet (float32 and the rows of the crystals), and the tables.

Every number of a page is said by one of these, never typed:

    archive.value("bimodal-e_form-s0", "mae", "e_form")                          68.4, meV/atom as in the tables
    archive.value("bimodal-e_form-s0", "mae", "e_form", exchanged="xrd")         of exchanged patterns; split="val" too
    claims.paired("composition-e_form-s0", "bimodal-e_form-s0", "e_form")        (2.96, 2.27): how much larger the errors
                                                                                 of the first are, meV/atom or points
    claims.WORDS["xrd"]                                                          "from the pattern alone"
    tables.committed("table_1")                                                  any committed table
"""
