"""The command line: ``python -m helpers.course student | grade FOLDER``."""

import argparse
from pathlib import Path

from helpers.course import grading, student
from helpers.pages import BUILD
from helpers.printing import spell_out


def main() -> None:
    spell_out()
    parser = argparse.ArgumentParser(prog="python -m helpers.course", description="The suite as coursework.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("student", help="Write the edition for students.")
    handed_in = commands.add_parser("grade", help="Grade the notebooks that students have handed in.")
    handed_in.add_argument("submissions", type=Path, metavar="FOLDER", help="with FOLDER/STUDENT/NN_name.ipynb in it")
    match (arguments := parser.parse_args()).command:
        case "student":
            student.edition()
            print(f"The student edition: {BUILD / 'student'}")
        case "grade":
            if not arguments.submissions.is_dir():
                parser.error(f"{arguments.submissions} is no folder")
            try:
                table = grading.grade(arguments.submissions)
            except ValueError as error:
                parser.error(str(error))
            except KeyboardInterrupt:
                parser.exit(130, f"{parser.prog}: interrupted; no grades have been written\n")
            print(grading.summary(table).to_string())
            print(f"\nWhy, and each notebook as it was run: {grading.place(arguments.submissions)} (grades.csv)")


if __name__ == "__main__":
    main()
