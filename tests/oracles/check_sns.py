"""Judges the simulator's notifications with the package cryptography. Usage: check_sns.py SIMULATOR"""

import json

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from desk import Simulator, refuses
from notary import Wrong, judge

sim = Simulator()
topic = "arn:aws:sns:us-west-2:111122223333:kms-events"
authority = x509.load_pem_x509_certificate(sim.fetch("/senders/sns/ca.pem"))


def good(body):
    return judge(body, topic, sim.fetch, authority)


event = {"topicArn": topic, "event": "UpdateAlias", "alias": "alias/atlas-prod", "key": "1234abcd-12ab-34cd-56ef-1234567890ab"}
_, body = sim.one("aws-sns", **event)
inner = json.loads(good(body)["Message"])
assert inner["detail"]["requestParameters"]["aliasName"] == "alias/atlas-prod"
for more in ({"subject": "a subject\nTopicArn\nevil"}, {"message": "line\nTopicArn\narn:evil\nType\nNotification é"}):
    _, body = sim.one("aws-sns", **{**event, **more})
    good(body)
for kind in ("SubscriptionConfirmation", "UnsubscribeConfirmation"):
    headers, body = sim.one("aws-sns", topicArn=topic, event=kind)
    assert headers["x-amz-sns-message-type"] == kind
    message = good(body)
    assert message["Token"] in message["SubscribeURL"] and topic in message["SubscribeURL"]
for forge in ("signature", "stranger", "certificate", "expired", "topic", "unsigned"):
    _, body = sim.one("aws-sns", forge=forge, **event)
    refuses(forge, lambda: good(body), InvalidSignature, Wrong, ValueError, KeyError)
_, body = sim.one("aws-sns", **event)
_, old = sim.one("aws-sns", signatureVersion="1", **event)
refuses("version 1", lambda: good(old), Wrong)
changed = json.dumps({**json.loads(body), "Message": "other"})
refuses("a changed message", lambda: good(changed), InvalidSignature)
print("sns: cryptography verifies version 2 up to the authority, and refuses version 1 and seven forgeries")
