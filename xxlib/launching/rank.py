"""One process of a training under the supervisor: python -m xxlib.launching.rank SUPERVISOR_PID MODULE run.json

Ends with the process that started it, torchrun or the supervisor, and leaves its last words in the error file that
torchrun knows.
"""

import faulthandler
import runpy
import sys

import psutil

from xxlib.launching.processes import end_with_parent


def main():
    supervisor, module = int(sys.argv[1]), sys.argv[2]
    del sys.argv[1:3]
    end_with_parent()
    # A parent that died before that line has left an orphan, which nobody would end.
    if supervisor not in [parent.pid for parent in psutil.Process().parents()]:
        sys.exit("rank: its supervisor is gone")
    faulthandler.enable()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except BaseException as last:
        if not isinstance(last, SystemExit) or isinstance(last.code, str):
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(last)
        raise


if __name__ == "__main__":
    main()
