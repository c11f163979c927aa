# Sourced by .ci/run and by the workflow: which modules there are, and how to run a
# command in each. It keeps to what the old bash of macOS understands.

# As Windows writes it, where that differs.
native() { (cd "$1" && { pwd -W 2>/dev/null || pwd; }); }

root=$(native .)
library=github.com/seed-a18b2dc9/workpool
modules=$(git ls-files -- go.mod '*/go.mod' | xargs -n 1 dirname)
# What is in one of these folders is for those who work on this repository.
published=$(grep -Ev '(^|/)(benchmarks|examples|internal|tools)(/|$)' <<<"$modules")
# The version that comes next, of all published modules.
version=$(awk -v path="$library" '$1 == path && $3 == "=>" { print $2 }' go.work)

# path MODULE prints its import path.
path() { awk '$1 == "module" { print $2 }' "$1/go.mod"; }

# each COMMAND... runs a command in every module of the workspace, and passes only
# where it passes in all of them.
each() {
	local module
	for module in $modules; do
		[ "$module" != tools ] || continue
		printf -- '-- %s: %s\n' "$module" "$*"
		(cd "$module" && "$@")
	done
}

# alone MODULES COMMAND... runs a command in each of the modules, without the
# workspace. What they require of one another is not published, so it uses a copy of
# go.mod to which go.work's replacements are added, and of go.sum. What the command
# changes there, as go get does, is taken over.
alone() (
	copy=$(native "$(mktemp -d)")
	trap 'rm -rf "$copy"' EXIT
	replace=$(awk -v root="$root" '$3 == "=>" { printf "replace %s %s => \"%s/%s\"\n", $1, $2, root, $4 }' go.work)
	restore=$(awk '$3 == "=>" { print "-dropreplace=" $1 "@" $2 }' go.work)
	flags=$(go env GOFLAGS)
	minor=$(go env GOVERSION)
	minor=${minor#go1.}
	export GOWORK=off
	for module in $1; do
		needed=$(awk '$1 == "go" { print $2 }' "$module/go.mod")
		oldest=${needed#1.}
		if [ "${oldest%%.*}" -gt "${minor%%[!0-9]*}" ]; then
			printf -- '-- %s: skipped, it needs Go %s\n' "$module" "$needed"
			continue
		fi
		printf -- '-- %s, alone: %s\n' "$module" "${*:2}"
		mkdir "$copy/before" "$copy/now"
		for file in go.mod go.sum; do
			[ ! -f "$module/$file" ] || cp "$module/$file" "$copy/before"
		done
		printf '\n%s\n' "$replace" >>"$copy/before/go.mod"
		go mod edit -fmt "$copy/before/go.mod"
		cp "$copy"/before/* "$copy/now"
		(cd "$module" && GOFLAGS="$flags -modfile=$copy/now/go.mod" "${@:2}") || exit
		if ! diff -r "$copy/before" "$copy/now" >"$copy/changes"; then
			go mod edit $restore "$copy/now/go.mod"
			cp "$copy"/now/* "$module"
		fi
		rm -r "$copy/before" "$copy/now"
	done
)
