"""pyftpdlib as scripts/ftp_bars.sh compares with it: files by sendfile(2), and nothing is logged.

usage: ftp_bars.py ROOT PORT
"""

import logging
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

logging.basicConfig(level=logging.ERROR)
root, port = sys.argv[1:]
authorizer = DummyAuthorizer()
authorizer.add_user("user", "12345", root, perm="elradfmwMT")
FTPHandler.authorizer = authorizer
assert FTPHandler.use_sendfile, "there is no sendfile here"
FTPServer(("127.0.0.1", int(port)), FTPHandler).serve_forever()
