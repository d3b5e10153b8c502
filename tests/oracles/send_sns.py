"""Has LocalStack subscribe a hook to a topic and publish to it, each message really signed.

Usage: send_sns.py LOCALSTACK [URL ALIAS KEY]
The topic is arn:aws:sns:us-east-1:000000000000:kms-events with signature version 2. Without URL a receiver of our own judges
the messages with the package cryptography, and confirms. With URL the hook itself must confirm; what it
made of the events is for its counters to say.
"""

import json
import sys
import time
import urllib.request

import boto3
from desk import Receiver

localstack = sys.argv[1].rstrip("/")
hook = sys.argv[2] if len(sys.argv) > 2 else None
alias, key = sys.argv[3:5] if len(sys.argv) > 4 else ("alias/atlas-prod", "1234abcd-12ab-34cd-56ef-1234567890ab")
sns = boto3.client(
    "sns", endpoint_url=localstack, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
)
own = None if hook else Receiver()
topic = sns.create_topic(Name="kms-events", Attributes={"SignatureVersion": "2"})["TopicArn"]
assert topic == "arn:aws:sns:us-east-1:000000000000:kms-events", topic
event = {
    "version": "0", "id": "b1c9a5c6-7f0e-4c43-8df0-6b6a7d1c2e3f", "detail-type": "AWS API Call via CloudTrail",
    "source": "aws.kms", "account": "000000000000", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "region": "us-east-1", "resources": [],
    "detail": {
        "eventSource": "kms.amazonaws.com", "eventName": "UpdateAlias", "awsRegion": "us-east-1",
        "requestParameters": {"aliasName": alias, "targetKeyId": key},
        "eventID": "f72d3993-864f-48d6-8f16-e26e1ae8dff0",
    },
}  # fmt: skip


def wait(what, look):
    for _ in range(100):
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come")


def fetch(url):
    with urllib.request.urlopen(url) as reply:
        return reply.read()


def received(number):
    """Request number `number` of our own receiver, judged."""
    from notary import judge

    wait("a message", lambda: len(own.seen) > number)
    _, _, headers, body = own.seen[number]
    assert headers["content-type"] == "text/plain; charset=UTF-8", headers["content-type"]
    return judge(body, topic, fetch)


address = hook or own.url
arn = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=address, ReturnSubscriptionArn=True)["SubscriptionArn"]
if own:
    fetch(received(0)["SubscribeURL"])


def confirmed():
    return sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]["PendingConfirmation"] == "false"


wait("the confirmation", confirmed)
print("confirmed")
for subject in (None, "a key has moved"):
    more = {"Subject": subject} if subject else {}
    sns.publish(TopicArn=topic, Message=json.dumps(event, indent=2), **more)
if own:
    for number in (1, 2):
        assert json.loads(received(number)["Message"])["detail"]["eventName"] == "UpdateAlias"
    print("cryptography verifies LocalStack's confirmation and notifications, with and without a subject")
else:
    print("published the same event twice, with and without a subject")
