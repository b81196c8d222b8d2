# Prints each leaf of a JSON document as PATH<TAB>VALUE; the elements of a path are joined by "/", a value is one line.
{ text = text $0 "\n" }
END { rest = text; value("") }

function blank() { sub(/^[ \t\r\n]+/, "", rest) }
function take(n,   s) { s = substr(rest, 1, n); rest = substr(rest, n + 1); return s }
function string(   raw, out, c) {
  match(rest, /^"([^"\\]|\\.)*"/)
  raw = take(RLENGTH)
  raw = substr(raw, 2, length(raw) - 2)
  out = ""
  while (match(raw, /\\./)) {
    c = substr(raw, RSTART + 1, 1)
    out = out substr(raw, 1, RSTART - 1)
    raw = substr(raw, RSTART + 2)
    if (c == "n" || c == "t" || c == "r") out = out " "
    else if (c == "u") { out = out "?"; raw = substr(raw, 5) }
    else if (c != "b" && c != "f") out = out c
  }
  out = out raw
  sub(/ +$/, "", out)
  return out
}
function value(path,   c, name, i) {
  blank()
  c = substr(rest, 1, 1)
  if (c == "{") {
    take(1); blank()
    while (substr(rest, 1, 1) == "\"") {
      name = string(); blank(); take(1)
      value(path == "" ? name : path "/" name)
      blank()
      if (substr(rest, 1, 1) == ",") take(1)
      blank()
    }
    take(1)
  } else if (c == "[") {
    take(1); blank(); i = 0
    while (rest != "" && substr(rest, 1, 1) != "]") {
      value(path "/" i++)
      blank()
      if (substr(rest, 1, 1) == ",") take(1)
      blank()
    }
    take(1)
  } else if (c == "\"") {
    print path "\t" string()
  } else if (match(rest, /^[-+.0-9a-zA-Z]+/)) {
    print path "\t" take(RLENGTH)
  } else {
    rest = ""
  }
}
