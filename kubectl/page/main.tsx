// The page's wiring: the server's stream and the user's acts → state → elements.
import { render } from 'preact';
import { useCallback, useEffect, useState } from 'preact/hooks';
import type { NodeStory } from '../story.ts';
import type { Update } from '../updates.ts';
import { NOTHING, updated, type Choice, type Known } from './model.ts';
import { Page } from './view.tsx';

const AWAY = 'kubectl gpu-gate ui does not answer: is it still running?';

function App() {
  const [known, setKnown] = useState<Known>(NOTHING);
  const [trouble, setTrouble] = useState('');
  const [choice, setChoice] = useState<Choice>({ search: '', states: new Set() });
  const [selected, setSelected] = useState('');
  const [story, setStory] = useState<NodeStory | undefined>();
  const [now, setNow] = useState(Date.now());

  useEffect(() => {
    let stream: EventSource | undefined;
    // Nobody looks at a hidden page, and nothing is read for it.
    const look = (): void => {
      stream?.close();
      stream = undefined;
      if (document.hidden) return;
      stream = new EventSource('updates');
      stream.addEventListener('update', ({ data }: MessageEvent<string>) => {
        setKnown((before) => updated(before, JSON.parse(data) as Update));
        setTrouble('');
      });
      stream.addEventListener('trouble', ({ data }: MessageEvent<string>) => setTrouble(JSON.parse(data) as string));
      stream.addEventListener('error', () => setTrouble(AWAY));
    };
    look();
    document.addEventListener('visibilitychange', look);
    const clock = setInterval(() => setNow(Date.now()), 1000);
    return () => {
      document.removeEventListener('visibilitychange', look);
      stream?.close();
      clearInterval(clock);
    };
  }, []);

  // The story of a node is read again when the node changed.
  const version = JSON.stringify(known.nodes.get(selected) ?? null);
  useEffect(() => {
    if (selected === '' || version === 'null') return;
    let wanted = true;
    fetch(`node?name=${encodeURIComponent(selected)}`)
      .then(async (answer) => {
        if (!answer.ok) throw new Error(await answer.text());
        return answer.json() as Promise<NodeStory>;
      })
      .then(
        (read) => wanted && setStory(read),
        (error: unknown) => wanted && setTrouble(error instanceof Error ? error.message : AWAY),
      );
    return () => {
      wanted = false;
    };
  }, [selected, version]);

  const select = useCallback((name: string) => {
    setSelected(name);
    setStory(undefined);
  }, []);
  return <Page shown={{ known, trouble, now, choice, selected, story }} acts={{ choose: setChoice, select }} />;
}

const place = document.querySelector('#page');
if (place !== null) render(<App />, place);
