"""What surrounds a command: environment variables, closed descriptors, odd working folders."""

from hypothesis import strategies as st

from fuzzing.words import drawn_from, texts

# Read when modules are imported, so a fork of a process that has imported them would not notice.
READ_EARLY = ("PYTHON", "LANG", "LC_", "KERAS_BACKEND", "TF_", "CUDA", "OMP", "MPL")

environments = st.lists(
    drawn_from("variables").flatmap(lambda entry: st.tuples(st.sampled_from(entry[0]), st.sampled_from(entry[1]))),
    min_size=1,
    max_size=2,
).map(dict)
closed = st.sampled_from([[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]])
folders = st.one_of(
    drawn_from("folders"),
    st.just("x" * 200),
    texts.map(lambda text: text.replace("/", "_")[:60]).filter(lambda text: text.strip(".") != ""),
)
