"""Makes the users of RabbitMQ and MongoDB that users.yaml describes. Done again, it changes passwords and rights.

Runs once at each start of docker-compose.yml, in our image. Needs RABBITMQ_ADMIN_URL (the management API), and
MONGO_ADMIN_URL, each with an administrator's name and password, and the variables that users.yaml names.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pymongo
import pymongo.errors
import yaml

from config import SettingsError, load_settings

USERS = Path(__file__).with_name("users.yaml")
#: Longest wait for one answer, in seconds.
TIMEOUT = 10.0


class SetupError(Exception):
    """The users cannot be made; the sentence says why, without a password."""


def described(path: Path = USERS) -> dict[str, dict[str, dict[str, Any]]]:
    """What users.yaml says: of ``rabbitmq`` and of ``mongodb``, by user."""
    found: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def permissions(user: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """A user's three regular expressions, for an installation whose names begin with ``prefix``."""
    return {right: user[right].replace("PREFIX", re.escape(prefix)) for right in ("configure", "write", "read")}


class Broker:
    """RabbitMQ's management API, as an administrator.

    Args:
        url: its address, with user and password.
    """

    def __init__(self, url: str) -> None:
        at = urllib.parse.urlsplit(url)
        who = f"{urllib.parse.unquote(at.username or '')}:{urllib.parse.unquote(at.password or '')}"
        self._base = f"{at.scheme}://{at.netloc.rpartition('@')[2]}/api"
        self._headers = {
            "Authorization": "Basic " + base64.b64encode(who.encode()).decode(),
            "Content-Type": "application/json",
        }

    def put(self, *path: str, body: Mapping[str, Any]) -> None:
        """Write one thing.

        Raises:
            SetupError: it was refused, or nobody answers.
        """
        self._ask("PUT", path, json.dumps(body).encode())

    def delete(self, *path: str) -> None:
        """Remove one thing; SetupError where that does not work."""
        self._ask("DELETE", path, None)

    def _ask(self, method: str, path: tuple[str, ...], body: bytes | None) -> None:
        url = "/".join([self._base, *(urllib.parse.quote(part, safe="") for part in path)])
        request = urllib.request.Request(url, body, self._headers, method=method)
        try:
            urllib.request.urlopen(request, timeout=TIMEOUT).close()
        except urllib.error.HTTPError as error:
            raise SetupError(f"RabbitMQ answers {error.code} {error.reason} to {method} {'/'.join(path)}") from None
        except OSError as error:
            raise SetupError(f"RabbitMQ's management API does not answer: {error}") from None


def make_broker_user(
    broker: Broker, name: str, user: Mapping[str, Any], password: str, *, vhost: str = "/", prefix: str = ""
) -> None:
    """Make a user of RabbitMQ with its rights, or give one that is there this password and these rights."""
    broker.put("users", name, body={"password": password, "tags": ",".join(user["tags"])})
    broker.put("permissions", vhost, name, body=permissions(user, prefix))


def make_database_user(client: Any, database: str, name: str, user: Mapping[str, Any], password: str) -> None:
    """Make a user of MongoDB with its role, or give one that is there this password and this role."""
    db = client[database]
    role = user.get("role") or f"dispatcher_{name}"
    if "actions" in user:
        privileges = [
            {"resource": {"db": database, "collection": collection}, "actions": actions}
            for collection, actions in user["actions"].items()
        ]
        known = db.command("rolesInfo", role)["roles"]
        db.command("updateRole" if known else "createRole", role, privileges=privileges, roles=[])
    known = db.command("usersInfo", name)["users"]
    db.command("updateUser" if known else "createUser", name, pwd=password, roles=[{"role": role, "db": database}])


def main() -> int:
    """Make every user; returns the exit code."""
    settings, users = load_settings(), described()
    broker = Broker(os.environ["RABBITMQ_ADMIN_URL"])
    for name, user in users["rabbitmq"].items():
        make_broker_user(broker, name, user, os.environ[user["password"]], prefix=settings.amqp.prefix)
    client: Any = pymongo.MongoClient(os.environ["MONGO_ADMIN_URL"], serverSelectionTimeoutMS=TIMEOUT * 1000)
    for name, user in users["mongodb"].items():
        make_database_user(client, settings.mongo.database, name, user, os.environ[user["password"]])
    print(f"setup: users of RabbitMQ: {', '.join(users['rabbitmq'])}; of MongoDB: {', '.join(users['mongodb'])}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (SetupError, SettingsError, pymongo.errors.PyMongoError) as problem:
        print(f"setup: {problem}", file=sys.stderr)
        sys.exit(1)
    except KeyError as problem:
        print(f"setup: the environment variable {problem} is not set", file=sys.stderr)
        sys.exit(1)
