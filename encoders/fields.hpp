// SPDX-License-Identifier: Apache-2.0
//
// The fields of a call site as members of a JSON object. A key is a path, "http.method" a member of the
// object "http"; no two keys of an object are the same, and none is one of ours.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/buffers/byte_buffer.hpp>

namespace spillway::detail {

/// What stands around the values of a record; the same for all records of a call site.
struct FieldLayout {
  std::vector<std::string> keys;   ///< before each value: ,"order_id":
  std::vector<std::size_t> order;  ///< the field of each of them; empty: in the order of fields
  std::string tail;                ///< behind the last value
};

/// A property with one of `own_keys` gets the prefix "field."; one with the key of another a number.
/// Metrics and dimensions keep their names, which are no paths.
FieldLayout layout_of(const std::vector<SiteField>& fields,
                      std::span<const std::string_view> own_keys);

/// Appends the values of a record between their keys, each string cut at `string_bytes_max`. `scratch`
/// is memory to use.
void append_fields(const FieldLayout& layout, const std::vector<SiteField>& fields,
                   std::span<const std::byte> values, std::size_t string_bytes_max,
                   std::vector<ValueReader>& scratch, ByteBuffer& out);

/// The next of `values` behind its key.
void append_member(std::string_view key, ValueReader& values, ValueType type,
                   std::size_t string_bytes_max, ByteBuffer& out);
void skip_value(ValueReader& values, ValueType type) noexcept;

/// ,"tenant":"acme" and so on: on whose behalf a record was made, as far as it is known. Needs
/// identity_bytes_max().
char* write_identity(char* to, const ContextTexts& context) noexcept;
std::size_t identity_bytes_max(const ContextTexts& context) noexcept;
/// ,"span_id":"1a2b3c4d5e6f7081". Needs span_id_bytes.
char* write_span_id(char* to, std::uint64_t span_id) noexcept;
inline constexpr std::size_t span_id_bytes = 32;

/// `text` with its quotes.
std::string json_of(std::string_view text);

/// What `append(longest string)` appends and `end`, or, where that is more than `bytes_max`, with
/// strings cut and `mark` in place of `end`. Half the longest string each time: an escape makes up to
/// six bytes of one, so sizes cannot be foreseen.
template <class Append>
void append_cut(const Append& append, std::string_view end, std::string_view mark,
                std::size_t bytes_max, ByteBuffer& out) {
  const std::size_t start = out.size();
  append(~std::size_t{0});
  if (out.size() - start + end.size() <= bytes_max) return out.append(end);
  for (std::size_t longest = bytes_max;
       longest > 0 && out.size() - start + mark.size() > bytes_max;) {
    longest /= 2;
    out.truncate(start);
    append(longest);
  }
  out.append(mark);
}

}  // namespace spillway::detail
