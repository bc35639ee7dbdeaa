// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <set>
#include <utility>

#include <spillway/middleware/resilience/settings.hpp>
#include <spillway/middleware/signing/key_material.hpp>

namespace spillway::middleware {

struct SigningKeys::Table {
  std::vector<Key> keys;
};

namespace {

bool is_key_id(std::string_view id) noexcept {
  return !id.empty() && id.size() <= signing_key_id_chars_max &&
         std::all_of(id.begin(), id.end(),
                     [](char c) { return c >= ' ' && c <= '~' && c != '"' && c != '\\'; });
}

void check(const std::vector<SigningKey>& keys) {
  SettingsCheck check("signing keys");
  check.within<std::size_t>("the number of keys", keys.size(), 1, signing_keys_max);
  std::set<std::string_view> ids;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const SigningKey& key = keys[i];
    const std::string of = "key " + std::to_string(i + 1) + ": ";
    check
        .require(
            is_key_id(key.id),
            of + "the id is not 1 to 64 characters of printable ASCII without quote and backslash")
        .require(ids.insert(key.id).second, of + "its id is there twice")
        .require(key.secret.size() >= signing_secret_bytes_min,
                 of + "the secret is shorter than 32 bytes")
        .require(key.from < key.until, of + "it is never valid");
  }
  check.done();
}

}  // namespace

SigningKeys::SigningKeys(std::vector<SigningKey> keys) { replace(std::move(keys)); }
SigningKeys::~SigningKeys() = default;

void SigningKeys::replace(std::vector<SigningKey> keys) {
  check(keys);
  auto table = std::make_shared<Table>();
  for (SigningKey& key : keys) {
    table->keys.push_back({std::move(key.id),
                           transport::Secret(key.secret.begin(), key.secret.end()), key.from,
                           key.until});
    transport::wipe(key.secret);
  }
  const std::scoped_lock lock(mutex_);
  table_ = std::move(table);
}

std::shared_ptr<const SigningKeys::Table> SigningKeys::table() const {
  const std::scoped_lock lock(mutex_);
  return table_;
}

SigningKeys::KeyHandle SigningKeys::signing(WallTime now) const {
  auto all = table();
  const Key* latest = nullptr;
  for (const Key& key : all->keys) {
    if (key.from <= now && now < key.until && (latest == nullptr || key.from >= latest->from))
      latest = &key;
  }
  return latest == nullptr ? nullptr : KeyHandle(std::move(all), latest);
}

SigningKeys::KeyHandle SigningKeys::verifying(std::string_view id, WallTime now) const {
  auto all = table();
  for (const Key& key : all->keys) {
    if (key.id == id) return now < key.until ? KeyHandle(std::move(all), &key) : nullptr;
  }
  return nullptr;
}

}  // namespace spillway::middleware
