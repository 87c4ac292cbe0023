"""All of the package is in pyproject.toml but this: a wheel carries the checkpoints of data/, as xxlib/checkpoints."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithCheckpoints(build_py):
    """An editable install finds the checkpoints in the checkout and copies none."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for path in self.checkpoints():
                target = Path(self.build_lib, "xxlib", path.relative_to("data"))
                self.mkpath(str(target.parent))
                self.copy_file(str(path), str(target))

    def get_source_files(self):  # what goes into an archive of the sources
        return super().get_source_files() + list(map(str, self.checkpoints()))

    def checkpoints(self):
        return [path for path in sorted(Path("data/checkpoints").rglob("*")) if path.is_file()]


setup(cmdclass={"build_py": WithCheckpoints})
