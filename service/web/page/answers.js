// What is said where the service answers with anything but success, or not at all.

export const UNREACHABLE = "The service cannot be reached.";

export async function sentence(answer) {
  const problem = await answer.json().catch(() => null);
  return problem?.detail ?? `The service answered ${answer.status}.`;
}

// The JSON of a result; throws an error whose message is a sentence.
export async function json(url) {
  const answer = await fetch(url).catch(() => { throw new Error(UNREACHABLE); });
  if (!answer.ok) throw new Error(await sentence(answer));
  return answer.json();
}
