#!/bin/bash
# Starts mongod as the user mongodb. With an empty /data/db, first makes the administrator that MONGO_INITDB_ROOT_USERNAME
# and MONGO_INITDB_ROOT_PASSWORD name, on a mongod of its own that nobody else reaches.
set -euo pipefail
as_mongodb() { setpriv --reuid mongodb --regid mongodb --clear-groups "$@"; }
chown -R mongodb:mongodb /data/db
if [ -z "$(ls -A /data/db)" ]; then
    as_mongodb mongod --fork --logpath /tmp/first.log --bind_ip 127.0.0.1 --dbpath /data/db > /dev/null
    mongosh --quiet admin --eval '
        const {MONGO_INITDB_ROOT_USERNAME: user, MONGO_INITDB_ROOT_PASSWORD: pwd} = process.env
        db.createUser({user, pwd, roles: ["root"]})'
    as_mongodb mongod --shutdown --dbpath /data/db > /dev/null
fi
exec setpriv --reuid mongodb --regid mongodb --clear-groups "$@" --dbpath /data/db
