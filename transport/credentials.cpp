// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <exception>
#include <new>
#include <system_error>
#include <utility>

#include <spillway/transport/background_thread.hpp>
#include <spillway/transport/credentials.hpp>

namespace spillway::transport {

Credentials::Credentials(std::string_view id, std::string_view secret, std::string_view token)
    : access_key_id(id), secret_access_key(secret), session_token(token) {}

CredentialsChain::CredentialsChain(std::vector<std::unique_ptr<CredentialsProvider>> sources,
                                   Options options, std::shared_ptr<BlockingHttp> http)
    : sources_(std::move(sources)), options_(std::move(options)), http_(std::move(http)) {}

CredentialsChain::~CredentialsChain() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  if (http_ != nullptr) http_->stop();
  if (fetcher_.joinable()) fetcher_.join();
}

CredentialsResult CredentialsChain::get(Time now) {
  const std::scoped_lock lock(mutex_);
  // A clock that was set back would keep the next try waiting for as long.
  if (now >= refresh_at_ || now < last_try_) refresh(now);
  return answer(now);
}

CredentialsResult CredentialsChain::get_within(Time now, std::chrono::milliseconds timeout) {
  CredentialsResult result = get(now);
  const auto* const error = std::get_if<CredentialsError>(&result);
  if (error == nullptr || !error->pending) return result;
  std::unique_lock lock(mutex_);
  fetched_.wait_for(lock, timeout, [this] { return !fetching_; });
  return answer(now);
}

bool CredentialsChain::refused(const Credentials& credentials, Time now) {
  const std::scoped_lock lock(mutex_);
  if (fetching_) return true;
  if (current_ == nullptr) return false;
  const auto replaced = [&] {
    return current_->access_key_id != credentials.access_key_id ||
           current_->secret_access_key != credentials.secret_access_key ||
           current_->session_token != credentials.session_token;
  };
  if (replaced()) return true;
  // The environment and the files are read again each time; what takes a fetch has its pauses.
  const bool too_soon = now >= fetched_at_ && now - fetched_at_ < credentials_forced_refresh_min;
  if (!too_soon) {
    refresh(now);
    if (fetching_ || replaced()) return true;
  }
  refresh_at_ = std::min(refresh_at_, std::max(now, fetched_at_ + credentials_forced_refresh_min));
  return false;
}

bool CredentialsChain::usable(Time now) const noexcept {
  return current_ != nullptr && now < usable_until_;
}

CredentialsResult CredentialsChain::answer(Time now) {
  if (usable(now)) return current_;
  if (fetching_) return CredentialsError{"AWS credentials are being fetched", true};
  return CredentialsError{error_};
}

// Under the mutex.
void CredentialsChain::refresh(Time now) {
  if (fetching_ || stopping_) return;
  last_try_ = now;
  SourceResult result = ask(false);
  const auto* const error = std::get_if<CredentialsError>(&result);
  if (error == nullptr || !error->pending) return settle(std::move(result), now);
  fetched_at_ = now;
  if (!options_.background) return settle(ask(true), now);
  if (fetcher_.joinable()) fetcher_.join();  // It has ended: fetching_ was not set.
  try {
    fetching_ = true;
    fetcher_ = start_thread("spillway-creds", [this, now] {
      SourceResult fetched = ask(true);
      const std::scoped_lock lock(mutex_);
      fetching_ = false;
      settle(std::move(fetched), now);
      fetched_.notify_all();
    });
  } catch (const std::system_error&) {
    fetching_ = false;
    settle(CredentialsError{"no AWS credentials: the system gives no thread to fetch them"}, now);
  }
}

SourceResult CredentialsChain::ask(bool may_wait) try {
  std::string reasons;
  for (asked_last_ = 0; asked_last_ < sources_.size(); ++asked_last_) {
    SourceResult result = sources_[asked_last_]->get(may_wait);
    const auto* const absent = std::get_if<NotConfigured>(&result);
    if (absent == nullptr) return result;
    reasons.append("\n  ").append(absent->reason);
  }
  return CredentialsError{
      "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile in "
      "~/.aws/credentials, or give the container or instance a role" +
      reasons};
} catch (const std::bad_alloc&) {
  return CredentialsError{"out of memory"};  // Short enough for a string's own bytes.
} catch (const std::exception& error) {      // A source's own fault is not the host's.
  try {
    return CredentialsError{error.what()};
  } catch (const std::bad_alloc&) {
    return CredentialsError{"out of memory"};
  }
}

// Under the mutex.
void CredentialsChain::settle(SourceResult result, Time now) {
  using std::chrono::seconds;
  auto* const fresh = std::get_if<Credentials>(&result);
  const bool has_source = asked_last_ < sources_.size();
  const bool outlives = has_source && sources_[asked_last_]->outlives_expiration();
  const auto extended = [&] {
    const double draw = options_.draw ? options_.draw() : 0.5;
    // Two to ten minutes more, so that a fleet does not ask in step.
    return now + credentials_extension + seconds(120 + static_cast<int>(draw * 480));
  };
  if (fresh != nullptr && fresh->expiration && *fresh->expiration <= now && !outlives) {
    result = CredentialsError{"the AWS credentials that were found have expired; renew them"};
    return settle(std::move(result), now);
  }
  std::shared_ptr<const Credentials> kept;
  if (fresh != nullptr) {
    try {
      kept = std::make_shared<const Credentials>(*fresh);
    } catch (const std::bad_alloc&) {
      return settle(CredentialsError{"out of memory"}, now);
    }
    failures_ = 0;
    error_.clear();
    outlives_expiration_ = outlives;
    usable_until_ = refresh_at_ = Time::max();
    if (fresh->expiration && *fresh->expiration <= now) {
      usable_until_ = extended();
      refresh_at_ = now + credentials_extension;
    } else if (fresh->expiration) {
      usable_until_ = *fresh->expiration;
      const auto life = usable_until_ - now;
      refresh_at_ = now + std::max<Time::duration>(life - credentials_advisory_refresh, life / 2);
    }
    current_ = std::move(kept);
    return;
  }
  if (auto* const error = std::get_if<CredentialsError>(&result))
    error_ = std::move(error->message);
  const auto wait = credentials_retry_min * (1 << std::min(failures_++, 10));
  refresh_at_ = now + std::min<seconds>(wait, credentials_retry_max);
  if (current_ != nullptr && outlives_expiration_ &&
      usable_until_ - now < credentials_retry_max * 2) {
    usable_until_ = extended();
  }
}

}  // namespace spillway::transport
