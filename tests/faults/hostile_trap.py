"""Nothing may import this: it says so by a file beside it."""

import os

with open(os.environ["MTLKIT_TRAP"], "w") as file:
    file.write("caught")


class Trap:
    pass
