"""Signs a message with DKIM, or verifies one, by dkimpy: `dkim_tool.py sign|verify KEYFILE < message`.

`sign` makes the key pair first where it is not there; `verify` takes the public key from beside it instead of from DNS.
"""

import os
import subprocess
import sys

import dkim

DOMAIN, SELECTOR = b"elsewhere.example", b"test"


def main():
    command, key = sys.argv[1:]
    message = sys.stdin.buffer.read()
    if command == "sign":
        if not os.path.exists(key):
            subprocess.run(["openssl", "genrsa", "-traditional", "-out", key, "2048"], check=True, stderr=subprocess.DEVNULL)
        with open(key, "rb") as file:
            signature = dkim.sign(message, SELECTOR, DOMAIN, file.read(), include_headers=[b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Content-Type", b"MIME-Version"])
        sys.stdout.buffer.write(signature + message)
        return
    public = subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-outform", "PEM"], check=True, capture_output=True).stdout
    encoded = b"".join(line for line in public.splitlines() if not line.startswith(b"-----"))

    def dns(name, timeout=5):
        return b"v=DKIM1; k=rsa; p=" + encoded if name.startswith(SELECTOR + b"._domainkey") else None

    if not dkim.verify(message, dnsfunc=dns):
        sys.exit("the signature does not verify")


main()
