// SPDX-License-Identifier: Apache-2.0
//
// Takes out of texts what must not leave the process: card numbers, e-mail addresses, bearer tokens,
// and values that stand behind a key like "password", also inside JSON, URLs, forms and headers that
// somebody logged as one string.
//
// Patterns, not understanding: a string of digits that happens to be a card number is taken for one,
// and a secret that looks like nothing is not seen. A field whose key says what it holds is safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/buffers/byte_buffer.hpp>

namespace spillway::detail {

struct RedactionPolicy {
  /// Names whose values are secret. Compared without case and punctuation ("api_key" is "X-Api-Key"
  /// less its x), whole or between `*`s: "*token" is every name that ends so. A name behind a '!' is
  /// harmless, whatever else says otherwise: "!*next_token".
  std::vector<std::string> keys;
  bool cards = true;
  bool emails = true;
  bool tokens = true;  ///< behind the word "Bearer", JSON Web Tokens, users and passwords in URLs

  bool empty() const noexcept { return keys.empty() && !cards && !emails && !tokens; }
};

/// The policy of two lists with commas between: of kinds ("cards", "emails", "tokens", or "none") and
/// of keys. Nothing when a kind is none of these, or a key has no letter or digit.
std::optional<RedactionPolicy> parse_redaction_policy(std::string_view kinds,
                                                      std::string_view keys);

/// One thread: it has a buffer.
class Redactor {
 public:
  /// Stands where something was taken out.
  static constexpr std::string_view mark = "[redacted]";

  explicit Redactor(const RedactionPolicy& policy);

  /// Whether the values of this key are secret, by its name or by one of the names in a path
  /// ("headers.authorization").
  bool is_secret(std::string_view key) const noexcept;

  /// `text` without its secrets: itself where it has none, else a text that is valid until the next
  /// call. Takes time in proportion to the length, whatever the text is.
  std::string_view text(std::string_view text);

 private:
  struct Pattern {
    std::string name;
    bool open_begin;
    bool open_end;
  };
  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;  ///< 0: none
  };
  struct Scan;

  bool matches(std::string_view name) const noexcept;
  Match secret_value(const Scan& scan) const noexcept;
  std::string_view rewrite(std::string_view text);

  const RedactionPolicy policy_;
  std::vector<Pattern> patterns_;
  std::vector<Pattern> harmless_;
  std::size_t shortest_pattern_ = ~std::size_t{0};
  ByteBuffer out_;
};

}  // namespace spillway::detail
