#!/usr/bin/env bash
# Django's tests of what concerns the database, with psycopg 3, directly and through the proxy.
# Arguments replace the list of test modules.
set -eu
. "$(dirname "$0")/common.sh"
version=5.2.19
modules=(
  aggregation annotations async backends basic bulk_create constraints datetimes db_functions db_typecasts
  db_utils delete distinct_on_fields expressions expressions_case expressions_window fixtures
  get_or_create indexes inspectdb introspection lookup many_to_many many_to_one migrations migrations2
  model_indexes multiple_database nested_foreign_keys ordering postgres_tests prefetch_related queries
  raw_query schema select_for_update select_related serializers test_utils timezones transaction_hooks
  transactions update
)
[ $# -eq 0 ] || modules=("$@")

python django "django==$version" 'psycopg[binary]>=3.3,<4' 'setuptools>=77' wheel jinja2 tblib unittest-xml-reporting
source_of django "django==$version"
# Made and kept: what serves a database has connections in it, so it can't be dropped. Of each run's own,
# because some tests leave tables behind.
servers django "${SUITE_PORT:-21030}" direct direct_other proxy proxy_other postgres

cat >"$work/django/suite_settings.py" <<PYTHON
import os

def database(name):
    return {
        "ENGINE": "django.db.backends.postgresql", "NAME": name, "TEST": {"NAME": name},
        "HOST": "$SUITE_HOST", "PORT": os.environ["SUITE_PORT"],
        "USER": "$SUITE_USER", "PASSWORD": "$SUITE_PASSWORD",
    }

WAY = os.environ["SUITE_WAY"]
DATABASES = {"default": database(WAY), "other": database(f"{WAY}_other")}
SECRET_KEY = "suite"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "xmlrunner.extra.djangotestrunner.XMLTestRunner"
TEST_OUTPUT_DIR = "$work/django"
TEST_OUTPUT_FILE_NAME = f"{WAY}.xml"
PYTHON
cd "$source/tests"
export PYTHONPATH=$work/django
for way in direct proxy; do
  SUITE_PORT=$(port_of $way)
  export SUITE_PORT
  SUITE_WAY=$way "$python" runtests.py --settings suite_settings --parallel 1 --keepdb --noinput \
    "${modules[@]}" >"$work/django/$way.log" 2>&1 || true
done
psycopg=$("$python" -c 'import psycopg; print(psycopg.__version__)')
"$here/compare.py" django "Django $version with psycopg $psycopg on PostgreSQL $(server_version)" \
  "$work/django/direct.xml" "$work/django/proxy.xml"
