// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>

#include <spillway/encoders/characters.hpp>
#include <spillway/encoders/redaction.hpp>

namespace spillway::detail {
namespace {

constexpr std::size_t none = std::string_view::npos;

// ---- Characters ----

constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }
constexpr char lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
}
constexpr bool is_letter(char c) noexcept { return lower(c) >= 'a' && lower(c) <= 'z'; }
constexpr bool is_word(char c) noexcept { return is_letter(c) || is_digit(c); }
constexpr bool is_blank(char c) noexcept { return c == ' ' || c == '\t'; }
constexpr bool is_quote(char c) noexcept { return c == '"' || c == '\''; }
// Internationalised addresses have letters beyond ASCII.
constexpr bool is_wide(char c) noexcept { return static_cast<unsigned char>(c) >= 0x80; }

constexpr auto table_of(std::string_view others) {
  std::array<bool, 256> table{};
  for (std::size_t c = 0; c < 256; ++c) {
    const char character = static_cast<char>(c);
    table[c] = is_word(character) || others.find(character) != none;
  }
  return table;
}
using Table = std::array<bool, 256>;
constexpr Table key_characters = table_of("_-.[]%$");
constexpr Table token_characters = table_of("-._~+/=%");  // RFC 6750, b64token; encoded in a URL
constexpr Table base64url_characters = table_of("-_");    // RFC 7515
constexpr Table mailbox_characters = table_of(".!#$%&*+-_'");  // RFC 5322 without what delimits
constexpr bool in(const Table& table, char c) noexcept {
  return table[static_cast<unsigned char>(c)];
}

bool continues_with(std::string_view text, std::size_t at, std::string_view lower_case) noexcept {
  return text.size() - at >= lower_case.size() &&
         std::equal(lower_case.begin(), lower_case.end(),
                    text.begin() + static_cast<std::ptrdiff_t>(at),
                    [](char wanted, char c) { return wanted == lower(c); });
}

// ---- The first look ----

constexpr std::size_t card_digits_min = 13;
constexpr std::size_t card_digits_max = 19;

// Whether a text may hold anything that is taken out: one of : = @ %, the letters "bea" or "yJ", or
// thirteen characters in a row of those from ' ' to '9', which digits and what separates them are. It
// says no to most texts.
bool is_suspicious(std::string_view text) noexcept {
  std::uint32_t numbers = 0;  // bits of the block before and of this one
  std::uint32_t b = 0;        // each with the last bit of the block before
  std::uint32_t be = 0;
  std::uint32_t y = 0;
  for (std::size_t at = 0; at < text.size(); at += 16) {
    const Characters c = load(text.data() + at, text.size() - at);
    const Characters small = c | all(0x20);
    const auto signs = (c == all(':')) | (c == all('=')) | (c == all('@')) | (c == all('%'));
    if (bits_of(signs) != 0) return true;
    numbers = numbers >> 16 | bits_of(c - all(' ') <= all('9' - ' ')) << 16;
    b = b >> 16 | bits_of(small == all('b')) << 1;
    be = be >> 16 | (b & bits_of(small == all('e'))) << 1;
    y = y >> 16 | bits_of(c == all('y')) << 1;
    std::uint32_t run = numbers;
    run &= run >> 1;
    run &= run >> 2;
    run &= run >> 4;
    run &= run >> 5;
    if ((run | (be & bits_of(small == all('a'))) | (y & bits_of(c == all('J')))) != 0) return true;
  }
  return false;
}
static_assert(card_digits_min == 13, "the shifts above add up to it");

// ---- Card numbers ----

// Whether an issuer gives out numbers that begin with these four digits, of this length (ISO/IEC 7812
// ranges as the issuers publish them; Maestro's 12 digits are left out, they would be every phone
// number).
bool is_issued(unsigned first4, std::size_t digits) noexcept {
  const auto between = [first4](unsigned low, unsigned high) {
    return first4 >= low && first4 <= high;
  };
  if (between(4000, 4999)) return digits == 13 || digits == 16 || digits >= 18;  // Visa
  if (between(5100, 5599) || between(2221, 2720)) return digits == 16;           // Mastercard
  if (between(3400, 3499) || between(3700, 3799)) return digits == 15;           // American Express
  if (between(3000, 3059) || between(3600, 3699) || between(3800, 3999))
    return digits >= 14;                                                // Diners Club
  if (between(3528, 3589) || between(2200, 2204)) return digits >= 16;  // JCB, Mir
  if (between(8100, 8299)) return digits >= 16;                         // RuPay, UnionPay
  // Discover, UnionPay, Maestro, Verve.
  return between(5000, 5099) || between(5600, 5899) || between(6000, 6999);
}

// The end of a card number that begins with the digit at `begin`; 0: there is none. A number is one
// group of digits or several with a single separator between them, and ends where a group ends.
std::size_t card_end(std::string_view text, std::size_t begin) noexcept {
  std::size_t found = 0;
  std::size_t digits = 0;
  unsigned first4 = 0;
  unsigned sum[2] = {0, 0};  // with the digits at even places doubled, and with those at odd ones
  for (std::size_t at = begin; at < text.size();) {
    if (!is_digit(text[at])) break;
    const auto digit = static_cast<unsigned>(text[at] - '0');
    if (digits < 4) first4 = first4 * 10 + digit;
    const unsigned doubled = digit < 5 ? 2 * digit : 2 * digit - 9;
    sum[digits % 2] += doubled;
    sum[1 - digits % 2] += digit;
    ++digits;
    ++at;
    if (digits > card_digits_max) break;
    if (at < text.size() && is_digit(text[at])) continue;
    if (digits >= card_digits_min && sum[digits % 2] % 10 == 0 && is_issued(first4, digits))
      found = at;
    if (at + 1 >= text.size()) break;
    if (std::string_view(" -.+").find(text[at]) != none) {
      ++at;
    } else if (text.substr(at, 3) == "%20") {
      at += 3;
    }
  }
  return found;
}

// Whether a number may begin with the digit at `at`: not in the middle of one, and not behind the
// point of a decimal fraction.
bool begins_number(std::string_view text, std::size_t at) noexcept {
  if (at == 0) return true;
  const char before = text[at - 1];
  if (is_digit(before)) return false;
  return before != '.' || at == 1 || !is_digit(text[at - 2]);
}

// ---- Values behind keys ----

std::size_t skip_blanks(std::string_view text, std::size_t at) noexcept {
  while (at < text.size() && is_blank(text[at])) ++at;
  return at;
}

// The end of a quoted value whose first character is at `begin`; `escapes` backslashes stand before
// its quotes, as where JSON is a string in JSON.
std::size_t quoted_end(std::string_view text, std::size_t begin, char quote,
                       std::size_t escapes) noexcept {
  std::size_t backslashes = 0;
  for (std::size_t at = begin; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++backslashes;
      continue;
    }
    const bool closes = escapes == 0 ? backslashes % 2 == 0 : backslashes <= escapes;
    if (text[at] == quote && closes) return at - (escapes == 0 ? 0 : backslashes);
    backslashes = 0;
  }
  return text.size();
}

// The end of the object or array that begins at `begin`; the end of the text when it has none.
std::size_t bracket_end(std::string_view text, std::size_t begin) noexcept {
  std::size_t depth = 0;
  char quote = 0;
  std::size_t backslashes = 0;
  for (std::size_t at = begin; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\\') {
      ++backslashes;
      continue;
    }
    const bool escaped = backslashes % 2 != 0;
    backslashes = 0;
    if (quote != 0) {
      if (c == quote && !escaped) quote = 0;
    } else if (c == '"' && !escaped) {
      quote = c;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth == 0) {
      return at + 1;
    }
  }
  return text.size();
}

// The end of a value without quotes.
std::size_t bare_end(std::string_view text, std::size_t begin) noexcept {
  return std::min(text.find_first_of(" \t\r\n&;,)}]\"'<>", begin), text.size());
}

bool is_scheme(std::string_view word) noexcept {
  constexpr std::array<std::string_view, 6> schemes{"bearer",    "basic", "digest",
                                                    "negotiate", "token", "apikey"};
  return std::any_of(schemes.begin(), schemes.end(), [&](std::string_view scheme) {
    return scheme.size() == word.size() && continues_with(word, 0, scheme);
  });
}

// These bound how far a scan looks back.
constexpr std::size_t key_bytes_max = 64;
constexpr std::size_t mailbox_bytes_max = 64;  // RFC 5321, 4.5.3.1.1

}  // namespace

std::optional<RedactionPolicy> parse_redaction_policy(std::string_view kinds,
                                                      std::string_view keys) {
  RedactionPolicy policy{{}, false, false, false};
  const auto next_of = [](std::string_view& list) {
    const std::size_t comma = std::min(list.find(','), list.size());
    std::string_view entry = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    while (entry.starts_with(' ')) entry.remove_prefix(1);
    while (entry.ends_with(' ')) entry.remove_suffix(1);
    return entry;
  };
  while (!kinds.empty()) {
    const std::string_view kind = next_of(kinds);
    if (kind == "cards") {
      policy.cards = true;
    } else if (kind == "emails") {
      policy.emails = true;
    } else if (kind == "tokens") {
      policy.tokens = true;
    } else if (kind != "none" || policy.cards || policy.emails || policy.tokens) {
      return std::nullopt;
    }
  }
  while (!keys.empty()) {
    const std::string_view key = next_of(keys);
    if (std::none_of(key.begin(), key.end(), is_word)) return std::nullopt;
    policy.keys.emplace_back(key);
  }
  return policy;
}

// ---- Keys ----

Redactor::Redactor(const RedactionPolicy& policy) : policy_(policy) {
  for (const std::string& key : policy.keys) {
    const bool is_harmless = key.starts_with('!');
    Pattern pattern{{}, key.substr(is_harmless ? 1 : 0).starts_with('*'), key.ends_with('*')};
    for (const char c : key) {
      if (is_word(c)) pattern.name += lower(c);
    }
    if (pattern.name.empty()) continue;
    if (!is_harmless) shortest_pattern_ = std::min(shortest_pattern_, pattern.name.size());
    (is_harmless ? harmless_ : patterns_).push_back(std::move(pattern));
  }
}

bool Redactor::matches(std::string_view name) const noexcept {
  if (name.size() < shortest_pattern_) return false;
  const auto is_like = [&](const Pattern& pattern) {
    if (pattern.open_begin && pattern.open_end) return name.find(pattern.name) != none;
    if (pattern.open_begin) return name.ends_with(pattern.name);
    if (pattern.open_end) return name.starts_with(pattern.name);
    return name == pattern.name;
  };
  return std::any_of(patterns_.begin(), patterns_.end(), is_like) &&
         std::none_of(harmless_.begin(), harmless_.end(), is_like);
}

bool Redactor::is_secret(std::string_view key) const noexcept {
  if (key.size() < shortest_pattern_) return false;
  // The whole of it, and each name of a path. What is longer than a key of any use is cut in front.
  std::array<char, 4 * key_bytes_max> name{};
  key = key.substr(key.size() - std::min(key.size(), name.size()));
  std::size_t size = 0;
  std::size_t part = 0;
  for (const char c : key) {
    if (is_word(c)) {
      name[size++] = lower(c);
    } else if (c == '.' || c == '/' || c == '[' || c == ']' || c == ':') {
      if (size != part && matches({name.data() + part, size - part})) return true;
      part = size;
    }
  }
  return (part != 0 && size != part && matches({name.data() + part, size - part})) ||
         matches({name.data(), size});
}

// ---- The second look ----

/// Where a scan stands.
struct Redactor::Scan {
  std::string_view text;
  std::size_t at = 0;
  std::size_t copied = 0;               ///< up to here the text is dealt with
  std::size_t authority = none;         ///< behind the "://" of the URL that the scan is in
  std::size_t no_web_token_before = 0;  ///< no "eyJ" before this place begins one

  // What stands in a URL before the '@' at `at`, or before the last one behind it: a user, or a user
  // and a password, in which somebody may have left an '@' as it is.
  Match user_info() const noexcept {
    if (authority >= at) return {};
    const std::size_t authority_end =
        std::min(text.find_first_of("/?# \t\n\"'\\", at), text.size());
    return {std::max(authority, copied), text.rfind('@', authority_end - 1)};
  }

  // The address around the '@' (or its code in a URL) at `at`.
  Match address(std::size_t sign_bytes) const noexcept {
    std::size_t begin = at;
    while (begin > copied && at - begin < mailbox_bytes_max &&
           (in(mailbox_characters, text[begin - 1]) || is_wide(text[begin - 1]))) {
      --begin;
    }
    if (begin == at) return {};
    // Labels with points between them, the last of at least two letters.
    std::size_t end = 0;
    std::size_t label = at + sign_bytes;
    for (std::size_t labels = 1;; ++labels) {
      std::size_t label_end = label;
      bool letters = true;
      while (label_end < text.size() &&
             (is_word(text[label_end]) || text[label_end] == '-' || is_wide(text[label_end]))) {
        letters = letters && !is_digit(text[label_end]);
        ++label_end;
      }
      if (label_end == label) break;
      if (labels > 1 && letters && label_end - label >= 2) end = label_end;
      if (label_end == text.size() || text[label_end] != '.') break;
      label = label_end + 1;
    }
    return {begin, end};
  }

  // The token behind the word "bearer" that begins at `at`.
  Match bearer() const noexcept {
    constexpr std::string_view word = "bearer";
    if ((at > 0 && is_word(text[at - 1])) || !continues_with(text, at, word)) return {};
    std::size_t begin = at + word.size();
    const std::size_t behind_word = begin;
    while (begin < text.size()) {
      if (is_blank(text[begin]) || text[begin] == '+') {
        ++begin;
      } else if (text.substr(begin, 3) == "%20") {
        begin += 3;
      } else {
        break;
      }
    }
    if (begin == behind_word) return {};
    std::size_t end = begin;
    while (end < text.size() && in(token_characters, text[end])) ++end;
    return end == begin ? Match{} : Match{begin, end};
  }

  // The JSON Web Token whose "eyJ" ends at `at`: three parts or five (RFC 7519, 7516).
  Match web_token() noexcept {
    if (at < copied + 2 || text[at - 1] != 'y' || text[at - 2] != 'e' || at < no_web_token_before)
      return {};
    const auto part_end = [this](std::size_t from) {
      while (from < text.size() && in(base64url_characters, text[from])) ++from;
      return from;
    };
    const std::size_t header_end = part_end(at);
    no_web_token_before = header_end;
    std::size_t end = header_end;
    int parts = 1;
    for (; parts < 5 && end < text.size() && text[end] == '.'; ++parts) end = part_end(end + 1);
    return parts < 3 ? Match{} : Match{at - 2, end};
  }
};

// The value behind the '=' or ':' at which the scan stands, when what stands before that is the name
// of a secret.
Redactor::Match Redactor::secret_value(const Scan& scan) const noexcept {
  const std::string_view text = scan.text;
  const auto before = [&](std::size_t at) { return at > scan.copied ? text[at - 1] : '\0'; };
  std::size_t key_end = scan.at;
  for (int blanks = 0; blanks < 2 && is_blank(before(key_end)); ++blanks) --key_end;
  const bool key_is_quoted = is_quote(before(key_end));
  if (key_is_quoted) --key_end;
  for (int escapes = 0; escapes < 8 && before(key_end) == '\\'; ++escapes) --key_end;
  std::size_t key = key_end;
  while (key_end - key < key_bytes_max && key > scan.copied && in(key_characters, text[key - 1]))
    --key;
  if (!is_secret(text.substr(key, key_end - key))) return {};

  std::size_t begin = scan.at + 1;
  while (begin < text.size() && (text[begin] == '=' || text[begin] == '>')) ++begin;
  begin = skip_blanks(text, begin);
  std::size_t escapes = 0;
  while (begin + escapes < text.size() && text[begin + escapes] == '\\') ++escapes;
  if (begin + escapes >= text.size()) return {};
  const char first = text[begin + escapes];
  if (is_quote(first)) {
    begin += escapes + 1;
    return {begin, quoted_end(text, begin, first, escapes)};
  }
  if (first == '{' || first == '[') return {begin, bracket_end(text, begin)};
  // A line "Name: value" is a header, whose value reaches to its end.
  const bool begins_line = key == 0 || text[key - 1] == '\n';
  if (text[scan.at] == ':' && !key_is_quoted && begins_line) {
    return {begin, std::min(text.find_first_of("\r\n", begin), text.size())};
  }
  std::size_t end = bare_end(text, begin);
  if (is_scheme(text.substr(begin, end - begin)) && end < text.size() && is_blank(text[end])) {
    end = bare_end(text, skip_blanks(text, end));
  }
  return {begin, end};
}

std::string_view Redactor::rewrite(std::string_view text) {
  out_.clear();
  Scan scan{text};
  while (scan.at < text.size()) {
    Match match;
    const char c = text[scan.at];
    switch (c) {
      case '0':
      case '1':
      case '2':
      case '3':
      case '4':
      case '5':
      case '6':
      case '7':
      case '8':
      case '9':
        if (policy_.cards && begins_number(text, scan.at)) {
          match = {scan.at, card_end(text, scan.at)};
        }
        break;
      case '@':
        if (policy_.tokens) match = scan.user_info();
        if (policy_.emails && match.end == 0) match = scan.address(1);
        break;
      case '%':
        if (policy_.emails && text.substr(scan.at, 3) == "%40") match = scan.address(3);
        break;
      case 'b':
      case 'B':
        if (policy_.tokens) match = scan.bearer();
        break;
      case 'J':
        if (policy_.tokens) match = scan.web_token();
        break;
      case ':':
        if (text.substr(scan.at, 3) == "://") scan.authority = scan.at + 3;
        [[fallthrough]];
      case '=':
        if (!patterns_.empty()) match = secret_value(scan);
        break;
      case '/':
      case '?':
      case '#':
      case ' ':
      case '\t':
      case '\n':
      case '"':
      case '\'':
      case '\\':
        if (scan.at >= scan.authority) scan.authority = none;
        break;
      default:
        break;
    }
    if (match.end <= match.begin) {
      ++scan.at;
      continue;
    }
    out_.append(text.substr(scan.copied, match.begin - scan.copied));
    out_.append(mark);
    scan.copied = scan.at = match.end;
    scan.authority = none;
  }
  if (scan.copied == 0) return text;
  out_.append(text.substr(scan.copied));
  return out_.view();
}

std::string_view Redactor::text(std::string_view text) {
  if (policy_.empty() || !is_suspicious(text)) return text;
  return rewrite(text);
}

}  // namespace spillway::detail
