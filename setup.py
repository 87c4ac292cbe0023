"""All of the package is in pyproject.toml but this: a wheel carries what data/ has of models that answer, as
xxlib/checkpoints and xxlib/libraries.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RELEASED = ("checkpoints", "libraries")  # folders of data/, where they are


class WithReleased(build_py):
    """An editable install finds them in the checkout and copies none."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for path in self.released():
                target = Path(self.build_lib, "xxlib", path.relative_to("data"))
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))

    def get_source_files(self):  # what goes into an archive of the sources
        return super().get_source_files() + list(map(str, self.released()))

    def released(self):
        return [path for kind in RELEASED for path in sorted(Path("data", kind).rglob("*")) if path.is_file()]


setup(cmdclass={"build_py": WithReleased})
