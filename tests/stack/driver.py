"""A process that runs the two servers of a data root until it is ended; prints their process ids when both answer."""

import sys
import time
from pathlib import Path

from lambdahat.stack.folder import DataFolder
from lambdahat.stack.postgres import Postgres
from lambdahat.stack.valkey import Valkey

with DataFolder(Path(sys.argv[1])) as folder:
    postgres, valkey = Postgres(folder), Valkey(folder)
    with valkey.running(), postgres.running():
        print(postgres.child.pid, valkey.child.pid, flush=True)
        time.sleep(600)
