"""Mail made and checked by libraries that know nothing of Lighter: Python's `email`, and dkimpy (RFC 6376).

    mail_tool.py compose FROM TO FILE          prints a message with FILE attached
    mail_tool.py sign KEYFILE < message        prints it with a DKIM-Signature; makes the key where there is none
    mail_tool.py verify KEYFILE < message      exits 0 where the signature verifies; the key instead of DNS
    mail_tool.py extract < message             prints the attachment, decoded
"""

import email
import email.policy
import os
import subprocess
import sys
from email.message import EmailMessage

import dkim

DOMAIN, SELECTOR = b"elsewhere.example", b"test"
SIGNED = [b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Content-Type", b"MIME-Version"]


def compose(sender, recipient, path):
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["To"] = sender, recipient
    message["Subject"] = "Grüße, mit Anhang"
    message["Date"] = "Sat, 21 Nov 2026 11:00:00 +0000"
    message["Message-ID"] = "<compose.test@elsewhere.example>"
    message.set_content("Die Übersicht ist angehängt.\r\n.\r\n", cte="8bit")
    message.add_alternative("<p>Die <b>Übersicht</b> ist angehängt.</p>", subtype="html")
    with open(path, "rb") as file:
        message.add_attachment(file.read(), maintype="application", subtype="zip", filename="Übersicht 2026.zip")
    return message.as_bytes()


def sign(message, key):
    if not os.path.exists(key):
        subprocess.run(["openssl", "genrsa", "-traditional", "-out", key, "2048"], check=True, capture_output=True)
    with open(key, "rb") as file:
        return dkim.sign(message, SELECTOR, DOMAIN, file.read(), include_headers=SIGNED) + message


def verify(message, key):
    command = ["openssl", "rsa", "-in", key, "-pubout", "-outform", "PEM"]
    public = subprocess.run(command, check=True, capture_output=True).stdout
    encoded = b"".join(line for line in public.splitlines() if not line.startswith(b"-----"))

    def dns(name, timeout=5):
        return b"v=DKIM1; k=rsa; p=" + encoded if name.startswith(SELECTOR + b"._domainkey") else None

    return dkim.verify(message, dnsfunc=dns)


def extract(message):
    parsed = email.message_from_bytes(message, policy=email.policy.SMTP)
    return next(parsed.iter_attachments()).get_content()


def main():
    command, *arguments = sys.argv[1:]
    if command == "compose":
        sys.stdout.buffer.write(compose(*arguments))
        return
    message = sys.stdin.buffer.read()
    if command == "sign":
        sys.stdout.buffer.write(sign(message, *arguments))
    elif command == "extract":
        sys.stdout.buffer.write(extract(message))
    elif not verify(message, *arguments):
        sys.exit("the signature does not verify")


main()
