"""The paper's tables and figures as declared experiments: ``python -m helpers.experiments list | run [NAME ...] | table``.

    declared.py    what is to be run: every cell of Table 1 and Figs. 2 and 3, and what the paper leaves open
    running.py     carries a run out, from wherever it was interrupted, and writes its record
    averaging.py   many masks' averages on the test set, saved part by part
    cluster.py     the same on many machines
    records.py     what the records say, beside what the paper says
    tables.py      what stands above the tables that say it

and of Molchanov et al. (2017), in the same way,

    variational.py, sparsifying.py, sparsity.py

Needs the extra ``notebooks``.
"""
