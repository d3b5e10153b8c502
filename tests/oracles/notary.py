"""How a receiver judges a notification, put together from the published rules and the package cryptography."""

import base64
import datetime
import json

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

FIELDS = {
    "Notification": ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
    "SubscriptionConfirmation": ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"],
}
FIELDS["UnsubscribeConfirmation"] = FIELDS["SubscriptionConfirmation"]


class Wrong(Exception):
    """What a signature does not cover."""


def judge(body, topic, fetch, authority=None):
    """Gives the message, or raises; `fetch` gets the certificate, `authority` is who must have made it."""
    message = json.loads(body)
    lines = []
    for name in FIELDS[message["Type"]]:
        if message.get(name) is not None:
            lines += [name, message[name]]
    text = "\n".join(lines) + "\n"
    if message.get("SignatureVersion") != "2":
        raise Wrong("signature version")
    certificate = x509.load_pem_x509_certificate(fetch(message["SigningCertURL"]))
    now = datetime.datetime.now(datetime.timezone.utc)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise Wrong("the certificate's time")
    if authority is not None:
        certificate.verify_directly_issued_by(authority)
    signature = base64.b64decode(message["Signature"])
    certificate.public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    if message["TopicArn"] != topic:
        raise Wrong("topic")
    if abs(now - datetime.datetime.fromisoformat(message["Timestamp"])) > datetime.timedelta(hours=1):
        raise Wrong("age")
    return message
