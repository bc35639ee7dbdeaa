// SPDX-License-Identifier: Apache-2.0
//
// Applies the redaction policy to drained records before any encoder sees them, so that it holds
// alike for logs, spans and wide events, wherever they go. Flusher only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <spillway/buffers/batch.hpp>
#include <spillway/encoders/redaction.hpp>

namespace spillway::detail {

class RecordRedactor {
 public:
  explicit RecordRedactor(const RedactionPolicy& policy)
      : active_(!policy.empty()), redactor_(policy) {}

  /// Takes the secrets out of the values of call site number `site`. What `log` refers to afterwards
  /// is valid until the next call.
  void redact(LogView& log, std::uint32_t site);
  /// The entries of a span (packed as record.hpp says) without their secrets; valid until the next
  /// call.
  std::span<const std::byte> redact(std::span<const std::byte> entries);
  /// A tenant, user or request id. Whether anything was taken out.
  bool redact(std::string& text);

 private:
  /// What there is to do at a call site, found out once.
  struct Site {
    bool known = false;
    bool has_strings = false;
    std::uint64_t secrets = 0;  ///< a bit a field; the first 64 are all that a record has
    /// In place of the call site where a number is secret: the mark is a string. Never changes.
    std::unique_ptr<SiteInfo> replacement;
  };
  const Site& site_of(const SiteInfo& info, std::uint32_t number);
  bool is_secret_name(std::uint32_t name);
  void append(const void* bytes, std::size_t size);
  void append_text(std::string_view text);
  /// Takes over what stands before `rest` and was not taken over yet.
  void copy_up_to(std::span<const std::byte> from, std::span<const std::byte> rest);

  const bool active_;
  Redactor redactor_;
  std::vector<Site> sites_;          // by number
  std::vector<std::uint8_t> names_;  // by number: 0 not asked yet, 1 harmless, 2 secret
  std::vector<std::byte> packed_;
  std::size_t copied_ = 0;
};

}  // namespace spillway::detail
