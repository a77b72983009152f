#!/usr/bin/env bash
# Puts what `make bench` measures beside us into the cache folder, from the package registries: NATS (Go),
# Kafka (Maven), LiteLLM (Python). Redis, nginx and wrk are Debian's. What can't be had is said, and its
# rows are left out.
set -u
FOLDER=${WAYSTATION_CACHE:-$HOME/.cache/waystation}/bench-peers
NATS=v2.15.2
NATS_CLI=v0.5.1
KAFKA=4.1.1
LITELLM=1.108.7
mkdir -p "$FOLDER"

have() { [[ -e $FOLDER/$1-$2.stamp ]]; }
done_with() { rm -f "$FOLDER/$1"-*.stamp; touch "$FOLDER/$1-$2.stamp"; }
without() { echo "bench: without $1: $2" >&2; }

if ! have nats $NATS; then
  if command -v go >/dev/null; then
    echo "bench: building nats-server $NATS"
    GOBIN=$FOLDER go install "github.com/nats-io/nats-server/v2@$NATS" &&
      GOBIN=$FOLDER go install "github.com/nats-io/natscli/nats@$NATS_CLI" &&
      done_with nats $NATS || without NATS "it didn't build"
  else
    without NATS "there is no go"
  fi
fi

if ! have kafka $KAFKA; then
  if command -v mvn >/dev/null; then
    echo "bench: fetching Kafka $KAFKA"
    project=$(mktemp -d)
    cat >"$project/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>bench</groupId><artifactId>peers</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA</version></dependency>
</dependencies></project>
POM
    rm -rf "$FOLDER/kafka"
    mvn -q -B -f "$project/pom.xml" dependency:copy-dependencies -DoutputDirectory="$FOLDER/kafka" &&
      done_with kafka $KAFKA || without Kafka "Maven did not fetch it"
    rm -rf "$project"
  else
    without Kafka "there is no mvn"
  fi
fi

if ! have litellm $LITELLM; then
  echo "bench: installing LiteLLM $LITELLM"
  rm -rf "$FOLDER/litellm"
  python3 -m venv "$FOLDER/litellm" && "$FOLDER/litellm/bin/pip" install -q "litellm[proxy]==$LITELLM" &&
    done_with litellm $LITELLM || without LiteLLM "pip did not install it"
fi
exit 0
