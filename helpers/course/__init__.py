"""The suite as coursework: ``python -m helpers.course student | grade FOLDER``.

    exercises.py     which cells are exercises, and notebooks without their solutions
    student.py       the edition for students
    submissions.py   which of the files that students hand in are graded
    autograding.py   one of them, run in a process of its own, and its points
    grading.py       all of them, and the table of points

nbgrader makes the student edition and grades what comes back. What is added to it: the marks of an exercise, so that the
notebooks need not carry them (the cell with a solution in it is the gap, the next one its check); and for each notebook
that is handed in a process of its own, so that one that hangs or crashes costs its author points, and nobody else.
Needs the extras ``notebooks`` and ``course``.
"""
